#!/usr/bin/env python3
"""Shows that check_layers.py finds what it is for: each test plants one mistake in a small tree."""

import pathlib
import tempfile
import unittest

import check_layers
import floors


class CheckLayersTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name)
        self.plant("common/base/a.h", "#pragma once\n#include <vector>\n")
        self.plant("common/io/b.h", '#include "common/base/a.h"\n')
        self.plant("nbdkit-ldim/plugin.cc", '#include <nbdkit-plugin.h>\n#include "nbdkit-ldim/disk/disk.h"\n')
        self.plant("nbdkit-ldim/disk/disk.h", '#include "nbdkit-ldim/journal/j.h"\n#include "common/io/b.h"\n')
        self.plant("common/client/c.cc", '#include <grpcpp/grpcpp.h>\n#include "dims/v1/dims.grpc.pb.h"\n')
        self.plant("tests/unit/a_test.cc", '#include "common/client/c.h"\n#include <rocksdb/db.h>\n')
        self.plant("tests/unit/CMakeLists.txt", "dims_test(a_test SOURCES a_test.cc)\n")

    def plant(self, path, text):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def assert_one_finding(self, *words):
        found = check_layers.findings(self.root)
        self.assertEqual(len(found), 1, found)
        for word in words:
            self.assertIn(word, found[0])

    def test_a_tree_in_order_has_no_findings(self):
        self.assertEqual(check_layers.findings(self.root), [])

    def test_an_upward_include_is_found_with_its_line(self):
        self.plant("common/io/bad.cc", '\n#include "common/crypto/hash.h"\n')
        self.assert_one_finding("common/io/bad.cc:2:", "points up", "common/crypto")

    def test_every_shared_floor_refuses_every_floor_above_it(self):
        for floor, folder in enumerate(floors.COMMON):
            for upper in floors.COMMON[floor + 1:]:
                with self.subTest(folder=folder, upper=upper):
                    self.assertIsNotNone(check_layers.include_finding(f"{upper}/x.h", True, folder))
                    self.assertIsNone(check_layers.include_finding(f"{folder}/x.h", True, upper))

    def test_no_floor_may_reach_itself_through_others(self):
        for folder in floors.MAY_INCLUDE:
            seen, todo = set(), list(floors.MAY_INCLUDE[folder])
            while todo:
                lower = todo.pop()
                if lower not in seen:
                    seen.add(lower)
                    todo.extend(floors.MAY_INCLUDE[lower])
            self.assertNotIn(folder, seen)

    def test_a_part_of_ldim_does_not_know_the_disk(self):
        self.plant("nbdkit-ldim/journal/j.cc", '#include "nbdkit-ldim/disk/disk.h"\n')
        self.assert_one_finding("nbdkit-ldim/journal/j.cc:1:", "points up")

    def test_a_shared_floor_does_not_know_a_program(self):
        self.plant("common/client/d.cc", '#include "rdim-server/catalog/catalog.h"\n')
        self.assert_one_finding("common/client/d.cc:1:", "points up")

    def test_the_catalog_does_not_know_the_services(self):
        self.plant("rdim-server/catalog/c.cc", '  #  include "rdim-server/services/s.h"\n')
        self.assert_one_finding("rdim-server/catalog/c.cc:1:", "points up")

    def test_tools_do_not_know_the_server(self):
        self.plant("image-tools/rdim/main.cc", '#include "rdim-server/stores/s.h"\n')
        self.assert_one_finding("image-tools/rdim/main.cc:1:", "points up")

    def test_products_do_not_include_tests(self):
        self.plant("image-tools/main.cc", '#include "tests/support/seed.h"\n')
        self.assert_one_finding("products do not include tests/")

    def test_the_wire_contract_stays_at_its_two_ends(self):
        self.plant("common/tree/t.cc", '#include "dims/v1/dims.pb.h"\n')
        self.assert_one_finding("common/tree/t.cc:1:", "the wire contract")

    def test_the_engine_stays_behind_its_interface(self):
        self.plant("rdim-server/catalog/c.cc", "#include <rocksdb/db.h>\n")
        self.assert_one_finding("RocksDB", "rdim-server/stores")

    def test_a_relative_include_is_found(self):
        self.plant("common/io/bad.cc", '#include "../crypto/hash.h"\n')
        self.assert_one_finding("from the top of the repository")

    def test_an_unknown_folder_is_found(self):
        self.plant("nbdkit-ldim/attic/a.cc", "int a;\n")
        self.assert_one_finding("nbdkit-ldim/attic/a.cc:1:", "does not know")

    def test_a_long_file_is_found(self):
        self.plant("common/base/long.cc", "// a line\n" * (floors.LINES_MAX + 1))
        self.assert_one_finding("common/base/long.cc", "split the room")

    def test_a_forbidden_word_is_found(self):
        self.plant("docs/x.md", "first\nTO" + "DO: later\n")
        self.assert_one_finding("docs/x.md:2:", "finish it")

    def test_a_test_that_nobody_runs_is_found(self):
        self.plant("tests/crash/power_test.cc", "int a;\n")
        self.plant("tests/crash/CMakeLists.txt", "# dims_test(power_test SOURCES power_test.cc)\n")
        self.assert_one_finding("tests/crash/power_test.cc:1:", "never runs")


if __name__ == "__main__":
    unittest.main()
