// The only program of a tiny guest: loads modules, mounts /dev/vda, puts load on it, says on the
// console what is durable.
//
// Commands, one a line: `mount FS`, `load SEED THREADS`, `stop`, `list`, `umount`, `off`. Answers,
// one a line, each beginning with '@':
//   @ready | @mounted | @unmounted | @stopped | @listed | @bad TEXT
//   @b FILE            an operation on FILE begins: until it ends FILE may be in any state
//   @d FILE SIZE HASH  FILE holds this, and fsync (of the file, of its folder where needed) has
//   returned
//   @u FILE            FILE is removed, and fsync of the folder has returned
//   @f FILE SIZE HASH  what `list` found
// Static, without anything around it: what is built here runs on every kernel that the harness
// finds.
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

constexpr const char* kDisk = "/disk";
constexpr int kFilesAThread = 12;
constexpr size_t kFileLimit = 192 << 10;

pthread_mutex_t console_mutex = PTHREAD_MUTEX_INITIALIZER;
std::atomic<bool> stopping{false};

__attribute__((format(printf, 1, 2))) void say(const char* format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line - 2, format, arguments);
  va_end(arguments);
  length = std::min(length, static_cast<int>(sizeof line) - 2);
  line[length++] = '\n';
  pthread_mutex_lock(&console_mutex);
  for (int done = 0; done < length;) {
    const ssize_t wrote = write(1, line + done, static_cast<size_t>(length - done));
    if (wrote > 0) done += static_cast<int>(wrote);
  }
  pthread_mutex_unlock(&console_mutex);
}

// Whatever the disk answers with an error is a failure of the test: it says so and stops.
[[noreturn]] void bad(const char* what, const std::string& where) {
  say("@bad %s %s: %s", what, where.c_str(), strerror(errno));
  for (;;) pause();
}

class Rng {
 public:
  explicit Rng(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_ * 0x2545f4914f6cdd1du;
  }
  size_t below(size_t limit) { return static_cast<size_t>((next() >> 33) % limit); }
  void fill(char* at, size_t count) {
    for (size_t i = 0; i < count; i += 8) {
      const uint64_t word = next();
      memcpy(at + i, &word, std::min<size_t>(8, count - i));
    }
  }

 private:
  uint64_t state_;
};

uint64_t hash_of(const std::vector<char>& data) {
  uint64_t hash = 0xcbf29ce484222325u ^ data.size();
  for (size_t i = 0; i < data.size(); i += 8) {
    uint64_t word = 0;
    memcpy(&word, data.data() + i, std::min<size_t>(8, data.size() - i));
    hash = (hash ^ word) * 0x100000001b3u;
    hash ^= hash >> 29;
  }
  return hash;
}

void write_all(int fd, const char* data, size_t count, off_t offset, const std::string& name) {
  while (count > 0) {
    const ssize_t wrote = pwrite(fd, data, count, offset);
    if (wrote <= 0) bad("pwrite", name);
    data += wrote, count -= static_cast<size_t>(wrote), offset += wrote;
  }
}

std::vector<char> read_all(const std::string& name) {
  const int fd = open(name.c_str(), O_RDONLY);
  if (fd < 0) bad("open", name);
  std::vector<char> data;
  for (;;) {
    char part[65536];
    const ssize_t got = read(fd, part, sizeof part);
    if (got < 0) bad("read", name);
    if (got == 0) break;
    data.insert(data.end(), part, part + got);
  }
  close(fd);
  return data;
}

// One folder with a few files, of which it knows what each should hold.
class Load {
 public:
  Load(int number, uint64_t seed)
      : number_(number),
        folder_(std::string(kDisk) + "/t" + std::to_string(number)),
        rng_(seed * 31 + static_cast<uint64_t>(number) + 7) {}

  void run() {
    if (mkdir(folder_.c_str(), 0755) != 0 && errno != EEXIST) bad("mkdir", folder_);
    sync_folder(kDisk);
    files_.resize(kFilesAThread);
    for (int i = 0; i < kFilesAThread; ++i) {
      struct stat info;
      files_[static_cast<size_t>(i)].there = stat(path(i).c_str(), &info) == 0;
      if (files_[static_cast<size_t>(i)].there)
        files_[static_cast<size_t>(i)].data = read_all(path(i));
    }
    while (!stopping) one();
  }

 private:
  struct File {
    bool there = false;
    std::vector<char> data;
  };

  std::string label(int file) const {
    return "t" + std::to_string(number_) + "/f" + std::to_string(file);
  }
  std::string path(int file) const { return std::string(kDisk) + "/" + label(file); }

  void sync_folder(const std::string& name) {
    const int fd = open(name.c_str(), O_RDONLY | O_DIRECTORY);
    if (fd < 0 || fsync(fd) != 0) bad("fsync of the folder", name);
    close(fd);
  }

  void one() {
    const int number = static_cast<int>(rng_.below(kFilesAThread));
    File& file = files_[static_cast<size_t>(number)];
    const size_t kind = rng_.below(10);
    say("@b %s", label(number).c_str());
    if (!file.there || kind == 0)
      replace(number, file);
    else if (kind == 1)
      return remove(number, file);
    else if (kind < 5)
      change(number, file, O_WRONLY);
    else if (kind == 5)
      cut(number, file);
    else
      change(number, file, kind == 6 ? O_WRONLY | O_SYNC : O_WRONLY);
    say("@d %s %zu %016llx", label(number).c_str(), file.data.size(),
        static_cast<unsigned long long>(hash_of(file.data)));
  }

  // A new file under another name, then the rename: as editors do it.
  void replace(int number, File& file) {
    const std::string fresh = folder_ + "/new" + std::to_string(number);
    file.data.resize(rng_.below(kFileLimit));
    rng_.fill(file.data.data(), file.data.size());
    const int fd = open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) bad("create", fresh);
    write_all(fd, file.data.data(), file.data.size(), 0, fresh);
    if (fsync(fd) != 0) bad("fsync", fresh);
    close(fd);
    if (rename(fresh.c_str(), path(number).c_str()) != 0) bad("rename", fresh);
    sync_folder(folder_);
    file.there = true;
  }

  void change(int number, File& file, int flags) {
    const size_t offset = rng_.below(std::min(file.data.size() + 1, kFileLimit - 1));
    const size_t count = 1 + rng_.below(rng_.below(4) == 0 ? 64 << 10 : 6000);
    file.data.resize(std::max(file.data.size(), offset + count));
    rng_.fill(file.data.data() + offset, count);
    const int fd = open(path(number).c_str(), flags);
    if (fd < 0) bad("open", path(number));
    write_all(fd, file.data.data() + offset, count, static_cast<off_t>(offset), path(number));
    if (fsync(fd) != 0) bad("fsync", path(number));
    close(fd);
  }

  void cut(int number, File& file) {
    file.data.resize(rng_.below(file.data.size() + 1));
    const int fd = open(path(number).c_str(), O_WRONLY);
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(file.data.size())) != 0)
      bad("ftruncate", path(number));
    if (fsync(fd) != 0) bad("fsync", path(number));
    close(fd);
  }

  void remove(int number, File& file) {
    if (unlink(path(number).c_str()) != 0) bad("unlink", path(number));
    sync_folder(folder_);
    file = File{};
    say("@u %s", label(number).c_str());
  }

  int number_;
  std::string folder_;
  Rng rng_;
  std::vector<File> files_;
};

void* run_load(void* load) {
  static_cast<Load*>(load)->run();
  return nullptr;
}

class Guest {
 public:
  void command(const std::string& line) {
    char word[32] = "", argument[32] = "";
    int threads = 1;
    sscanf(line.c_str(), "%31s %31s %d", word, argument, &threads);
    const std::string verb = word;
    if (verb == "mount") {
      if (mount("/dev/vda", kDisk, argument, MS_NOATIME,
                strcmp(argument, "ext4") == 0 ? "errors=remount-ro" : "") != 0)
        bad("mount", argument);
      say("@mounted");
    } else if (verb == "load") {
      start(strtoull(argument, nullptr, 10), threads);
    } else if (verb == "stop") {
      stop();
    } else if (verb == "list") {
      list();
    } else if (verb == "umount") {
      if (umount(kDisk) != 0) bad("umount", kDisk);
      say("@unmounted");
    } else if (verb == "off") {
      umount(kDisk);
      sync();
      reboot(RB_POWER_OFF);
    } else if (!verb.empty()) {
      say("@bad unknown command %s", verb.c_str());
    }
  }

 private:
  void start(uint64_t seed, int threads) {
    stopping = false;
    for (int i = 0; i < threads; ++i) {
      pthread_t thread;
      if (pthread_create(&thread, nullptr, run_load, new Load(i, seed)) != 0)
        bad("pthread_create", "");
      threads_.push_back(thread);
    }
  }

  void stop() {
    stopping = true;
    for (const pthread_t thread : threads_) pthread_join(thread, nullptr);
    threads_.clear();
    say("@stopped");
  }

  void list() {
    DIR* top = opendir(kDisk);
    if (top == nullptr) bad("opendir", kDisk);
    while (const dirent* folder = readdir(top)) {
      if (folder->d_name[0] != 't') continue;
      const std::string inside = std::string(kDisk) + "/" + folder->d_name;
      DIR* files = opendir(inside.c_str());
      if (files == nullptr) bad("opendir", inside);
      while (const dirent* file = readdir(files)) {
        if (file->d_name[0] == '.') continue;
        const std::vector<char> data = read_all(inside + "/" + file->d_name);
        say("@f %s/%s %zu %016llx", folder->d_name, file->d_name, data.size(),
            static_cast<unsigned long long>(hash_of(data)));
      }
      closedir(files);
    }
    closedir(top);
    say("@listed");
  }

  std::vector<pthread_t> threads_;
};

// /modules has one file name a line, in the order in which they are loaded.
void load_modules() {
  FILE* names = fopen("/modules", "r");
  if (names == nullptr) bad("open", "/modules");
  char name[256];
  while (fgets(name, sizeof name, names) != nullptr) {
    name[strcspn(name, "\n")] = 0;
    const int fd = open(name, O_RDONLY);
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST))
      bad("insmod", name);
    close(fd);
  }
  fclose(names);
}

}  // namespace

int main() {
  mkdir("/dev", 0755);
  mkdir(kDisk, 0755);
  mount("devtmpfs", "/dev", "devtmpfs", 0, "");
  const int console = open("/dev/console", O_RDWR);
  for (int fd = 0; fd < 3; ++fd) dup2(console, fd);
  termios settings;
  if (tcgetattr(0, &settings) == 0) {
    cfmakeraw(&settings);
    tcsetattr(0, TCSANOW, &settings);
  }
  load_modules();
  struct stat info;
  for (int tries = 0; stat("/dev/vda", &info) != 0; ++tries) {
    if (tries == 3000) bad("wait for", "/dev/vda");
    usleep(10000);
  }
  say("@ready");
  Guest guest;
  std::string line;
  for (;;) {
    char byte = 0;
    const ssize_t got = read(0, &byte, 1);
    if (got <= 0) {
      usleep(10000);
    } else if (byte == '\n') {
      guest.command(line);
      line.clear();
    } else {
      line.push_back(byte);
    }
  }
}
