# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Fails unless README contains the text of CODE, from below its licence line on.
file(READ ${README} readme)
file(READ ${CODE} code)
string(REGEX REPLACE "^// SPDX[^\n]*\n//\n" "" code "${code}")
string(FIND "${readme}" "${code}" place)
if(place EQUAL -1)
  message(FATAL_ERROR "${README} does not show ${CODE} as it is")
endif()
