// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Boost.Asio's own code, compiled here once (BOOST_ASIO_SEPARATE_COMPILATION in CMakeLists.txt).
#include <boost/asio/impl/src.hpp>
