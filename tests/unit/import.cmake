dims_test(test_import SOURCES import_test.cc import_update_test.cc import_media_test.cc patient_remote_test.cc DEPS
              dims_transfer dims_fake_remote)
