// A server that lies, and the real clients: whatever it alters in whatever it says, they end in a
// refusal or a retry, never on a byte, key or right that is not so, and nothing is lost locally.
#include <algorithm>
#include <cstdio>

#include "tests/contract/hostile_lies.h"
#include "tests/contract/hostile_world.h"
#include "tests/support/sizes.h"

using namespace dims;
using namespace dims::test;

namespace {

constexpr std::chrono::milliseconds kPatience{2500};

const google::protobuf::MethodDescriptor& method_named(const std::string& name) {
  for (const auto* method : all_methods())
    if (method->name() == name) return *method;
  FAIL("no method " + name);
  std::abort();
}

// A liar for one method. Counts what it changed; with `once` only the first of them.
class OneLie {
 public:
  OneLie(std::string method, Lie lie, const Heard& heard, bool once)
      : method_(std::move(method)), lie_(std::move(lie)), heard_(heard), once_(once) {}

  HostileProxy::Liar liar() {
    return [this](const PassingReply& reply) { return tell(reply); };
  }
  int told() const { return told_; }

 private:
  Told tell(const PassingReply& reply) {
    Told honest{{reply.message}, {}};
    if (reply.method != method_ || (once_ && told_ > 0)) return honest;
    if (lie_.what == "lost") {
      ++told_;
      return {{}, grpc::Status(grpc::StatusCode::UNAVAILABLE, "lost")};
    }
    if (lie_.what == "cut off" || lie_.what == "noise") {
      std::string bent = reply.message.substr(0, reply.message.size() / 2);
      if (lie_.what == "noise") {
        bent = reply.message;
        for (std::size_t i = 0; i < bent.size(); ++i)
          bent[i] = static_cast<char>(bent[i] ^ static_cast<char>(0x5a + 7 * i));
      }
      if (bent == reply.message) return honest;
      ++told_;
      return {{bent}, {}};
    }
    const auto message = new_message(*method_named(method_).output_type());
    if (!message->ParseFromString(reply.message)) return honest;
    if (!tell_lie(lie_, heard_, method_, *message)) return honest;
    ++told_;
    return {{message->SerializeAsString()}, {}};
  }

  const std::string method_;
  const Lie lie_;
  const Heard& heard_;
  const bool once_;
  std::atomic<int> told_{0};
};

// How a cell ended, under the lie.
enum class End { kNotTold, kRefused, kWaited, kTrue, kOld, kWrong };
struct Outcome {
  End end = End::kNotTold;
  std::string note;
};

struct Matrix {
  HostileWorld w;
  Heard heard;
  std::string laptop;  // logged in once, everything kept that an offline login needs
  ldim::SessionKeys disk_session, scratch_session;
  SimFileSystem known;  // a cache folder that ended a session on version 2
  std::vector<ImageId> images;

  Matrix() {
    laptop = w.laptop;
    disk_session = w.login(laptop, "disk");
    scratch_session = w.login(laptop, "scratch");
    std::filesystem::remove_all(laptop + "/certificates");
    make_known();
    for (const auto& image : w.world->catalog->list_images("", 100)) images.push_back(image.id);
  }

  // Version 2 was the head when this folder saw it: the server is told to say so.
  void make_known() {
    const auto worker = w.work(w.copy_folder(laptop, "cell"), disk_session);
    const auto old = worker.remote->get_version(w.disk, {}, 2);
    REQUIRE(old.ok());
    w.proxy->set_liar([&](const PassingReply& reply) {
      if (reply.method != "GetImage") return Told{{reply.message}, {}};
      v1::Image image;
      image.ParseFromString(reply.message);
      image.set_head(std::string(as_text(old->id.view())));
      image.set_head_sequence(2);
      return Told{{image.SerializeAsString()}, {}};
    });
    auto opened = w.open_disk(worker, "disk", known);
    INFO((opened.ok() ? "" : opened.error().to_string()));
    REQUIRE(opened.ok());
    REQUIRE(difference(DiskFixture::read_all(**opened), w.contents[1]) == "");
    end_session(**opened);
    opened->reset();
    w.proxy->set_liar({});
  }

  static void end_session(ldim::Disk& disk) {
    require_ok(disk.client_connected());
    disk.client_left(true);
    (void)disk.close(std::chrono::seconds(1)).ok();
  }
  // A client's every step, heard.
  void listen() {
    w.proxy->set_liar([this](const PassingReply& reply) {
      const auto message = new_message(*method_named(reply.method).output_type());
      message->ParseFromString(reply.message);
      heard.note(reply.method, *message);
      heard_in.insert(reply.method);
      return Told{{reply.message}, {}};
    });
  }
  std::set<std::string> heard_in;

  void forget_branches() {
    for (const auto& image : w.world->catalog->list_images("", 10'000)) {
      if (std::find(images.begin(), images.end(), image.id) == images.end())
        (void)w.world->catalog->remove_image(image.id).ok();
    }
  }

  // Reads under the lie: the disk as a whole, or why not.
  Outcome look(ldim::Disk& disk, const std::vector<const Bytes*>& right,
               const std::vector<const Bytes*>& old) {
    Bytes content(disk.size());
    constexpr std::size_t kStep = 64 * kKiB;
    bool all = true;
    std::string trouble;
    std::vector<bool> got(content.size() / kStep + 1, false);
    for (std::size_t at = 0; at < content.size() && all; at += kStep) {
      const auto status = disk.read({at, std::min(kStep, content.size() - at)}, &content[at]);
      got[at / kStep] = status.ok();
      if (!status.ok()) {
        all = false;
        trouble = status.error().to_string();
      }
    }
    const auto fits = [&](const Bytes& truth) {
      if (all && truth.size() != content.size()) return false;
      for (std::size_t at = 0; at < std::min(content.size(), truth.size()); at += kStep) {
        const std::size_t n = std::min({kStep, content.size() - at, truth.size() - at});
        if (got[at / kStep] && std::memcmp(&content[at], &truth[at], n) != 0) return false;
      }
      return true;
    };
    for (const Bytes* truth : right)
      if (fits(*truth)) return all ? Outcome{End::kTrue, ""} : Outcome{End::kRefused, trouble};
    for (const Bytes* truth : old)
      if (fits(*truth)) return all ? Outcome{End::kOld, ""} : Outcome{End::kRefused, trouble};
    return {End::kWrong, "the disk has other bytes, or another size"};
  }

  // The server is honest again: what this folder shows then must be the head.
  std::string after(HostileWorld::Worker& worker, io::FileSystem& fs, const std::string& image,
                    const Bytes& truth) {
    w.proxy->set_liar({});
    w.next_minute();
    for (int start = 1; start <= 3; ++start) {
      auto again = w.work(worker.folder->path(), worker.session);
      auto opened = w.open_disk(again, image, fs);
      if (!opened.ok()) {
        // "start again to go on from the server's head"
        if (opened.error().code == ErrorCode::kOtherHistory && start == 1) continue;
        return "afterwards: " + opened.error().to_string();
      }
      const Bytes content = DiskFixture::read_all(**opened);
      end_session(**opened);
      if (difference(content, truth) == "") return "";
    }
    return "afterwards: not the head's content";
  }

  Outcome fresh_cell(OneLie& lie) {
    SimFileSystem fs;
    return open_cell(lie, fs, {&w.contents[2]}, {&w.contents[0], &w.contents[1]});
  }
  Outcome known_cell(OneLie& lie) {
    const auto fs = known.copy();
    return open_cell(lie, *fs, {&w.contents[2], &w.contents[1]}, {});
  }
  Outcome open_cell(OneLie& lie, io::FileSystem& fs, const std::vector<const Bytes*>& right,
                    const std::vector<const Bytes*>& old) {
    auto worker = w.work(w.copy_folder(laptop, "cell"), disk_session);
    Outcome out;
    {
      Patience patience(kPatience, [&] { worker.remote->shutdown(); });
      w.proxy->set_liar(lie.liar());
      auto opened = w.open_disk(worker, "disk", fs, [&] { return patience.over().load(); });
      if (opened.ok()) {
        out = look(**opened, right, old);
        (void)(*opened)->close(std::chrono::milliseconds(0)).ok();
      } else {
        out = {End::kRefused, opened.error().to_string()};
      }
      if (patience.over() && out.end == End::kRefused) out.end = End::kWaited;
    }
    const std::string later = after(worker, fs, "disk", w.contents[2]);
    if (!later.empty()) return {End::kWrong, later + " [" + out.note + "]"};
    return out;
  }

  // Where the guest's writes are now: on the head, on a branch, or still in the folder.
  bool kept_somewhere(const Bytes& model) {
    const auto worker = w.work(laptop, scratch_session);
    const auto all = worker.remote->list_images();
    REQUIRE(all.ok());
    for (const auto& image : *all) {
      if (image.name != "scratch" && image.conflict_of != "scratch") continue;
      if (difference(read_version(*worker.remote, *worker.keys, image.id, image.head), model) == "")
        return true;
    }
    return false;
  }

  Outcome write_cell(OneLie& lie) {
    SimFileSystem fs;
    auto worker = w.work(w.copy_folder(laptop, "cell"), scratch_session);
    Bytes model = w.scratch_content;
    Outcome out;
    {
      auto opened = w.open_disk(worker, "scratch", fs);
      INFO((opened.ok() ? "" : opened.error().to_string()));
      REQUIRE(opened.ok());
      ldim::Disk& disk = **opened;
      REQUIRE(difference(DiskFixture::read_all(disk), model) == "");
      Patience patience(kPatience, [&] { worker.remote->shutdown(); });
      w.proxy->set_liar(lie.liar());
      const auto value = static_cast<std::uint8_t>(1 + w.random.below(255));
      write_at(disk, model, w.random.below(2 * kMiB), 100'000, value);
      require_ok(disk.flush());
      const auto sent = disk.sync(true, std::chrono::milliseconds(1500));
      out = look(disk, {&model}, {});
      if (out.end == End::kTrue && !sent.ok()) out = {End::kRefused, sent.error().to_string()};
      (void)disk.close(std::chrono::milliseconds(0)).ok();
    }
    w.proxy->set_liar({});
    w.next_minute();
    for (int start = 1; start <= 3 && out.end != End::kWrong; ++start) {
      auto again = w.work(worker.folder->path(), worker.session);
      auto opened = w.open_disk(again, "scratch", fs);
      if (!opened.ok()) {
        if (opened.error().code == ErrorCode::kOtherHistory && start == 1) continue;
        out = {End::kWrong, "afterwards: " + opened.error().to_string()};
        break;
      }
      const auto synced = (*opened)->sync(true, std::chrono::seconds(60));
      if (!synced.ok()) out = {End::kWrong, "afterwards: " + synced.error().to_string()};
      end_session(**opened);
      break;
    }
    if (out.end != End::kWrong && !kept_somewhere(model))
      out = {End::kWrong, "the writes are neither on the head nor on a branch [" + out.note + "]"};
    const auto head = w.work(laptop, scratch_session);
    const auto image = head.remote->get_image(w.scratch);
    REQUIRE(image.ok());
    w.scratch_content = read_version(*head.remote, *head.keys, w.scratch, image->head);
    forget_branches();
    return out;
  }

  bool right_keys(const ldim::SessionKeys& session) {
    const auto& member = *session.keys.member;
    const Secret32 truth = w.f.key_of_epoch(trust::scope_id(w.disk), 1);
    return session.image == w.disk && member.image.size() == 1 && member.image.at(1) == truth &&
           session.keys.org == w.f.org && member.local == client::local_key_of(w.carol.secrets);
  }

  Outcome login_cell(OneLie& lie) {
    const std::string machine = w.copy_folder(laptop, "cell");
    const auto wish = HostileWorld::wish(machine, "disk");
    const ByteView passphrase = as_bytes(HostileWorld::kPassphrase);
    Outcome out;
    w.proxy->set_liar(lie.liar());
    const auto session = ldim::log_in(wish, passphrase);
    if (!session.ok()) {
      out = {End::kRefused, session.error().to_string()};
    } else if (!right_keys(*session)) {
      out = {End::kWrong, "a login with other keys"};
    } else if (!(session->keys.domain == w.carol.secrets.private_domain)) {
      // Only its head shows whose domain an image has.
      auto worker = w.work(machine, *session);
      SimFileSystem fs;
      const auto opened = w.open_disk(worker, "disk", fs);
      out = opened.ok() ? Outcome{End::kWrong, "new chunks would be sealed for another domain"}
                        : Outcome{End::kRefused, opened.error().to_string()};
    } else {
      out = {End::kTrue, ""};
    }
    // What was kept before still serves without the server, and with it.
    w.proxy->set_liar({});
    for (const bool away : {true, false}) {
      w.proxy->set_away(away);
      w.next_minute();
      const auto later = ldim::log_in(wish, passphrase);
      if (later.ok() && right_keys(*later) && later->keys.domain == w.carol.secrets.private_domain)
        continue;
      out = {End::kWrong,
             std::string("afterwards, ") + (away ? "without" : "with") + " the server: " +
                 (later.ok() ? "other keys" : later.error().to_string()) + " [" + out.note + "]"};
    }
    w.proxy->set_away(false);
    return out;
  }

  using Cell = Outcome (Matrix::*)(OneLie&);
  static const std::map<std::string, Cell>& scenes() {
    static const std::map<std::string, Cell> table = {{"first start", &Matrix::fresh_cell},
                                                      {"next start", &Matrix::known_cell},
                                                      {"writes", &Matrix::write_cell},
                                                      {"login", &Matrix::login_cell}};
    return table;
  }
  Outcome run(const std::string& scene, OneLie& lie) {
    w.next_minute();
    Outcome out = (this->*scenes().at(scene))(lie);
    w.proxy->set_liar({});
    forget_branches();
    if (out.end != End::kWrong && lie.told() == 0) out.end = End::kNotTold;
    return out;
  }
};

struct Tally {
  std::size_t cells = 0, refused = 0, waited = 0, right = 0, old = 0, wrong = 0;
  void add(End end) {
    if (end == End::kNotTold) return;
    ++cells;
    refused += end == End::kRefused;
    waited += end == End::kWaited;
    right += end == End::kTrue;
    old += end == End::kOld;
    wrong += end == End::kWrong;
  }
};

}  // namespace

TEST_CASE("every_answer_altered_in_every_way_misleads_no_client") {
  Matrix m;
  struct Planned {
    std::string scene, method;
    Lie lie;
    bool once;
  };
  std::vector<Planned> plan;
  for (const auto& [scene, cell] : Matrix::scenes()) {
    m.heard_in.clear();
    m.listen();
    // The scene once without lies, heard.
    m.w.next_minute();
    const auto run_honestly = [&] {
      if (scene == "login") {
        const std::string machine = m.w.copy_folder(m.laptop, "cell");
        return ldim::log_in(HostileWorld::wish(machine, "disk"),
                            as_bytes(HostileWorld::kPassphrase))
            .ok();
      }
      const bool writes = scene == "writes";
      auto worker =
          m.w.work(m.w.copy_folder(m.laptop, "cell"), writes ? m.scratch_session : m.disk_session);
      const auto fs = scene == "next start" ? m.known.copy() : std::make_unique<SimFileSystem>();
      auto opened = m.w.open_disk(worker, writes ? "scratch" : "disk", *fs);
      if (!opened.ok()) return false;
      Bytes model = DiskFixture::read_all(**opened);
      if (writes) {
        write_at(**opened, model, 5000, 70'000, 77);
        DiskFixture::sync(**opened);
        m.w.scratch_content = model;
      }
      Matrix::end_session(**opened);
      return true;
    };
    REQUIRE(run_honestly());
    m.w.proxy->set_liar({});
    for (const std::string& method : m.heard_in)
      for (const Lie& lie : lies_about(*method_named(method).output_type()))
        for (const bool once : {false, true}) plan.push_back({scene, method, lie, once});
  }
  {
    // What other images, branches and older versions look like: for exchanges.
    m.listen();
    const auto worker = m.w.work(m.w.copy_folder(m.laptop, "cell"), m.disk_session);
    for (const ImageId& id : {m.w.disk, m.w.other, m.w.branch, m.w.scratch, m.w.common}) {
      const auto image = worker.remote->get_image(id);
      const auto versions = worker.remote->list_versions(id, 0);
      if (!image.ok() || !versions.ok()) continue;
      for (const auto& version : *versions)
        (void)worker.remote->get_version(id, version.id, 0).ok();
    }
    m.w.proxy->set_liar({});
  }
  std::vector<std::size_t> order(plan.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[m.w.random.below(i)]);
  const std::uint64_t wanted = rounds(24, plan.size());
  std::map<std::string, Tally> table;
  std::size_t cells = 0;
  const Shard part = shard();
  for (std::size_t at = 0; at < order.size() && cells < wanted; ++at) {
    if (!part.has(at)) continue;
    const Planned& p = plan[order[at]];
    OneLie lie(p.method, p.lie, m.heard, p.once);
    const Outcome out = m.run(p.scene, lie);
    if (out.end == End::kNotTold) continue;
    ++cells;
    table[p.scene + ", " + p.method].add(out.end);
    INFO(p.scene << ", " << p.method << ", '" << p.lie.field << "' " << p.lie.what
                 << (p.once ? ", once" : "") << ": " << out.note);
    CHECK(out.end != End::kWrong);
  }
  Tally all;
  std::printf("%-32s %6s %8s %6s %6s %5s %6s\n", "scene, answer", "cells", "refused", "waited",
              "right", "old", "wrong");
  for (const auto& [name, t] : table) {
    std::printf("%-32s %6zu %8zu %6zu %6zu %5zu %6zu\n", name.c_str(), t.cells, t.refused, t.waited,
                t.right, t.old, t.wrong);
    all.cells += t.cells;
    all.refused += t.refused;
    all.waited += t.waited;
    all.right += t.right;
    all.old += t.old;
    all.wrong += t.wrong;
  }
  std::printf("%-32s %6zu %8zu %6zu %6zu %5zu %6zu  (%zu planned)\n", "all", all.cells, all.refused,
              all.waited, all.right, all.old, all.wrong, plan.size());
  CHECK(all.cells > 0);
}
