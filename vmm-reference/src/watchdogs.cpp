// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "watchdogs.hpp"

#include <boost/asio/post.hpp>

namespace vmm_reference {

Watchdogs::Watchdogs(boost::asio::io_context& loop, std::function<void()> bite)
    : loop_(loop), bite_(std::move(bite)), timers_{Timer(loop), Timer(loop)} {}

void Watchdogs::set(std::uint32_t index, std::optional<std::chrono::seconds> after) {
  const auto from = std::chrono::steady_clock::now();
  boost::asio::post(loop_, [this, index, after, from] {
    Timer& timer = timers_[index];
    timer.cancel();
    if (!after) return;
    timer.expires_at(from + *after);
    timer.async_wait([this](boost::system::error_code cancelled) {
      if (!cancelled) bite_();
    });
  });
}

}  // namespace vmm_reference
