// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "watchdogs.hpp"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <utility>

namespace vmm_reference {

Watchdogs::Watchdogs(boost::asio::io_context& loop, std::function<void()> bite)
    : loop_(loop), bite_(std::move(bite)), timers_{Timer(loop), Timer(loop)} {}

void Watchdogs::set(std::uint32_t index, std::optional<std::chrono::nanoseconds> after) {
  {
    const std::scoped_lock lock(mutex_);
    due_[index].reset();
    if (after) due_[index] = Timer::clock_type::now() + *after;
  }
  boost::asio::post(loop_, [this, index] {
    const std::scoped_lock lock(mutex_);
    Timer& timer = timers_[index];
    timer.cancel();
    if (!due_[index]) return;
    timer.expires_at(*due_[index]);
    timer.async_wait([this, index](boost::system::error_code cancelled) {
      if (cancelled) return;
      {
        // One that was set anew while this waited for the loop.
        const std::scoped_lock again(mutex_);
        if (!due_[index] || *due_[index] > Timer::clock_type::now()) return;
      }
      bite_();
    });
  });
}

Watchdogs::Left Watchdogs::left() {
  const std::scoped_lock lock(mutex_);
  Left left;
  for (std::size_t at = 0; at < due_.size(); ++at) {
    if (!due_[at]) continue;
    const std::chrono::nanoseconds rest = *due_[at] - Timer::clock_type::now();
    left[at] = std::max<std::int64_t>(rest.count(), 0);
  }
  return left;
}

void Watchdogs::set_all(const Left& left) {
  for (std::uint32_t at = 0; at < left.size(); ++at) {
    set(at, left[at] ? std::optional(std::chrono::nanoseconds(*left[at])) : std::nullopt);
  }
}

}  // namespace vmm_reference
