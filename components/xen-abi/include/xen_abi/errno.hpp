// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Xen's error numbers, as a guest sees them: xen/include/public/errno.h. They are part of the
// ABI, and not the host's errno, although on Linux the two agree.
#pragma once

namespace xen_abi {

enum class Errno : int {
  perm = 1,        // EPERM
  noent = 2,       // ENOENT
  srch = 3,        // ESRCH
  nxio = 6,        // ENXIO
  too_big = 7,     // E2BIG
  nomem = 12,      // ENOMEM
  acces = 13,      // EACCES
  fault = 14,      // EFAULT
  busy = 16,       // EBUSY
  exist = 17,      // EEXIST
  inval = 22,      // EINVAL
  nospc = 28,      // ENOSPC
  dom = 33,        // EDOM
  nosys = 38,      // ENOSYS
  nodata = 61,     // ENODATA
  overflow = 75,   // EOVERFLOW
  ilseq = 84,      // EILSEQ
  opnotsupp = 95,  // EOPNOTSUPP
  nobufs = 105,    // ENOBUFS
};

}  // namespace xen_abi
