// The machine that sessions run on: threads, host hooks, and the one entrance through which work is done.
#pragma once

#include <dsv/dsv.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backend/jobs.h"
#include "backend/ops.h"
#include "base/host.h"

namespace dsv {

class Scheduler;
class Session;

class Engine {
 public:
  // Every function that touches an engine's sessions holds one of these. Throws BUSY when another holds it:
  // on another thread, or further up this thread's stack (a call from a callback).
  class Entry {
   public:
    explicit Entry(Engine& engine) : engine_(engine) { engine_.enter(); }
    ~Entry() { engine_.leave(); }
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

   private:
    Engine& engine_;
  };

  // `ops` is static. threads: 0 = one per core. hooks: null = none, copied. target: empty = best.
  Engine(const OpTable& ops, int32_t threads, const dsv_hooks* hooks, std::string target);
  ~Engine();

  const OpTable& ops() const { return ops_; }
  const Host& host() const { return host_; }
  Jobs& jobs() const { return *jobs_; }
  const char* target() const { return target_.empty() ? nullptr : target_.c_str(); }

  // Inside an Entry. Returns the number of requests that can still advance.
  int32_t step(int64_t budget_us);
  void run();
  // Inside an Entry, after step() or run() threw: if a session's own work did, its request ends with this
  // error and true is returned; the others are as they were.
  bool fail_request(dsv_status status, const char* sentence);

  // Inside an Entry: the session takes part in steps from now on.
  void attach(Session& session);
  // [any thread] Takes the session out of everything: at once, or when the call that runs now returns.
  void bury(std::shared_ptr<Session> session);

 private:
  void enter();
  void leave();
  void detach(Session& session);
  int32_t pending() const;

  const OpTable& ops_;
  Host host_;
  std::unique_ptr<Jobs> jobs_;
  std::string target_;

  std::mutex mutex_;  // of the two below; held for moments only
  bool busy_ = false;
  std::shared_ptr<Session> dead_;  // destroyed by the host while busy: a list, so that this cannot fail

  std::vector<Scheduler*> schedulers_;  // of models that have sessions, which keep them alive
  size_t turn_ = 0;                     // who goes first in the next round
};

// Picks the backend by name. Throws UNSUPPORTED or INVALID_ARGUMENT naming what there is.
std::shared_ptr<Engine> make_engine(const dsv_engine_options& options);

}  // namespace dsv
