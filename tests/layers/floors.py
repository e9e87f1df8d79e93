"""The floors of the code: who may include whom. This page is the rule; check_layers.py enforces it."""

COMMON = (
    "common/base",
    "common/io",
    "common/crypto",
    "common/format",
    "common/trust",
    "common/contract",
    "common/tree",
    "common/client",
)

LDIM_PARTS = (
    "nbdkit-ldim/journal",
    "nbdkit-ldim/pagemap",
    "nbdkit-ldim/cache",
    "nbdkit-ldim/fetch",
    "nbdkit-ldim/writeback",
)

# folder -> folders that its files may include (its own always). Arrows point down only.
MAY_INCLUDE = {
    # Shared floors: each one sees those below it.
    **{folder: COMMON[:floor] for floor, folder in enumerate(COMMON)},
    # LDIM: plugin.cc -> control, disk -> parts -> common.
    "nbdkit-ldim/journal": COMMON,
    "nbdkit-ldim/pagemap": COMMON + ("nbdkit-ldim/journal",),  # it maps to places in the journal
    "nbdkit-ldim/cache": COMMON,
    "nbdkit-ldim/fetch": COMMON + ("nbdkit-ldim/cache",),
    "nbdkit-ldim/writeback": COMMON + LDIM_PARTS[:-1],
    "nbdkit-ldim/disk": COMMON + LDIM_PARTS,
    "nbdkit-ldim/login": COMMON,  # who may use a disk, before there is one
    "nbdkit-ldim/control": COMMON + LDIM_PARTS + ("nbdkit-ldim/login", "nbdkit-ldim/disk"),
    "nbdkit-ldim": COMMON + LDIM_PARTS + ("nbdkit-ldim/login", "nbdkit-ldim/disk", "nbdkit-ldim/control"),
    # RDIM: main.cc -> services -> catalog -> stores. The client side of the wire is not the server's.
    "rdim-server/stores": COMMON[:-1],
    "rdim-server/catalog": COMMON[:-1] + ("rdim-server/stores",),
    "rdim-server/access": COMMON[:-1] + ("rdim-server/stores",),
    "rdim-server/services": COMMON[:-1] + ("rdim-server/stores", "rdim-server/catalog", "rdim-server/access"),
    "rdim-server": COMMON[:-1] + ("rdim-server/stores", "rdim-server/catalog", "rdim-server/access", "rdim-server/services"),
    # Tools know the shared floors and no program's inside.
    "image-tools": COMMON,
}

# Folders whose subfolders are one room with them.
WITH_SUBFOLDERS = ("image-tools",)

# Folders that may see everything; nothing else may include them.
OUTSIDE = ("tests", "bench")

# Headers with one home: (pattern of the include, what it is, folders that may use it).
HOMES = (
    (r"\.pb\.h$|^(proto/)?dims/v1/", "the wire contract", ("common/client", "rdim-server/services", "rdim-server")),
    (r"^grpc", "gRPC", ("common/client", "rdim-server/services", "rdim-server")),
    (r"^rocksdb/", "RocksDB", ("rdim-server/stores",)),
    (r"^(sodium|gcrypt|openssl/)", "cryptography", ("common/crypto",)),
    (r"^nbdkit-(plugin|filter|common|version)\.h$", "nbdkit", ("nbdkit-ldim",)),
    (r"^libnbd\.h$", "libnbd", ("image-tools",)),
)

LINES_MAX = 600
LINE_LIMITED = (".cc", ".h", ".py", ".sh", ".cmake", ".proto")

# Words that do not belong in the repository: (pattern, why). A letter in brackets keeps this table from
# finding itself.
FORBIDDEN = (
    (r"\b(TO[D]O|FIX[M]E|X[X]X)\b", "finish it or write it down in docs/"),
    (r"(?<![\w.~-])/wor[k]/", "a path of one developer's machine"),
    (r"/tmp/[w]\b", "a path of one developer's machine"),
    (r"(?i)\bai agen[t]s?\b|\bcodin[g] agen[t]s?\b", "says who wrote it, not what it is"),
    (r"(?i)co-authore[d]-by", "says who wrote it, not what it is"),
    (r"(?i)\bissu[e] \d+\b", "say what is wanted, not where it was asked for"),
    (r"(?i)\b(deb|snapshot|security)\.debia[n]\.org|\bpyp[i]\.org|registry\.np[m]js", "an address of a package registry"),
)
TEXT = (".cc", ".h", ".py", ".sh", ".cmake", ".proto", ".md", ".txt", ".json", ".pod", ".in", ".yml", ".toml", "")
