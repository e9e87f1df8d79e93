"""An organisation for the system tests: a server that was prepared, its administrator, users, machines."""
import json

from dims_system import CommandFailed, Skip, check
from processes import Server


class Person:
    """A user with a configuration folder of his own; his passphrase lies in a file of the test."""

    def __init__(self, org, name, passphrase, config=None):
        self.org, self.name = org, name
        self.config = org.world.path(config or f"config-{name}")
        self.config.mkdir(mode=0o700, exist_ok=True)
        self.words = None
        self.secret = org.world.path(f"passphrase-{config or name}")
        self.set_passphrase(passphrase)

    def set_passphrase(self, passphrase):
        self.passphrase = passphrase
        self.secret.write_text(passphrase + "\n")
        self.secret.chmod(0o600)

    def environment(self):
        return {"DIMS_CONFIG": str(self.config), "XDG_RUNTIME_DIR": str(self.config)}

    def rdim(self, *arguments, check_code=0, timeout=300):
        """Runs rdim as this person; gives its JSON, or (code, out, err) with check_code=None."""
        world = self.org.world
        command = [world.bin / "rdim", "-o", "json", *arguments]
        if check_code is None:
            return world.run(*command, check_code=None, timeout=timeout, env=self.environment())
        out = world.run(*command, check_code=check_code, timeout=timeout, env=self.environment())
        return json.loads(out) if out.strip() else {}

    def login(self, **more):
        return self.rdim("login", self.name, "--passphrase", f"+{self.secret}", **more)

    def join(self, line):
        self.words = self.rdim("join", line, "--passphrase", f"+{self.secret}")["recovery_words"]
        return self.login()


class Machine:
    """An enrolled machine: a folder."""

    def __init__(self, org, name):
        self.org, self.name = org, name
        self.folder = org.world.path(f"machine-{name}")

    def ldim(self, *arguments, check_code=0):
        world = self.org.world
        out = world.run(world.bin / "ldim", "-o", "json", *arguments, "--machine", self.folder, check_code=check_code)
        return json.loads(out) if check_code == 0 else out

    def enroll(self, line):
        return self.ldim("enroll", line)

    def images(self, person, check_code=0):
        return self.ldim("images", person.name, "--passphrase", f"+{person.secret}", check_code=check_code)

    def cache(self, person, image):
        return f"cache-{self.name}-{person.name}-{image}"

    def disk(self, person, image, **parameters):
        """A disk of that person on this machine, not started."""
        given = {"server": None, "key": None, "machine_dir": self.folder, "user": person.name,
                 "passphrase": f"+{person.secret}"}
        given.update(parameters)
        return self.org.world.disk_stopped(given.pop("server"), given.pop("key"), image, self.cache(person, image), **given)


class Organisation:
    def __init__(self, world, name="example", passphrase="correct horse of the admin", **options):
        self.world = world
        self.server = Server(world, "rdim", options)
        world.run(world.bin / "rdim-server", "init", "--data", self.server.data)
        self.server.start()
        self.people, self.machines = {}, {}
        self.admin = Person(self, "admin", passphrase)
        code, out, err = self.admin.rdim("--server", self.server.address, "init-org", "--name", name, "--bootstrap",
                                         self.server.data / "bootstrap-secret", "--passphrase", f"+{self.admin.secret}",
                                         check_code=None)
        if code != 0 and '"unsupported"' in out:
            raise Skip("this server knows no organisations")
        check(code == 0, f"init-org: exit code {code}: {out} {err}")
        made = json.loads(out)
        self.admin.words = made["recovery_words"]
        self.id, self.root_words, self.root_key = made["id"], made["root_words"], made["root_key"]
        self.admin.login()

    def user(self, name, role="user", passphrase=None):
        person = Person(self, name, passphrase or f"correct horse of {name}")
        person.join(self.admin.rdim("user", "add", name, "--role", role)["join_line"])
        self.admin.rdim("image", "grant", "--all")
        self.people[name] = person
        return person

    def machine(self, name):
        machine = Machine(self, name)
        machine.enroll(self.admin.rdim("machine", "token", name)["join_line"])
        self.machines[name] = machine
        return machine

    def restart(self):
        """Between every step of a test: nothing may live in the server's memory only."""
        self.server.stop()
        self.server.start()


def refused(call, *arguments, code=6, **more):
    """The command must fail with that exit code; gives what it printed."""
    try:
        call(*arguments, **more)
    except CommandFailed as error:
        check(code in (None, error.code), f"exit code {error.code}, expected {code}: {error}")
        return error.out + error.err
    raise AssertionError(f"{arguments} should have been refused")
