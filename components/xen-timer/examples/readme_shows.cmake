# Fails unless README contains the text of CODE.
file(READ ${README} readme)
file(READ ${CODE} code)
string(FIND "${readme}" "${code}" place)
if(place EQUAL -1)
  message(FATAL_ERROR "${README} does not show ${CODE} as it is")
endif()
