dims_test(test_base SOURCES base_test.cc posix_file_test.cc crypto_test.cc crypto_secret_test.cc DEPS dims_io dims_crypto)
