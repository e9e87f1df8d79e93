dims_test(test_journal SOURCES journal_test.cc DEPS ldim_journal)
