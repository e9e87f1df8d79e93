dims_test(test_tree SOURCES tree_test.cc tree_upload_test.cc DEPS dims_tree dims_fake_remote)
