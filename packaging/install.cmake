# The part of `cmake --install` that depends on the prefix it is given: the configuration, and the
# service, which names the binaries. DESTDIR is honoured.

# The daemon looks in /etc, whether it is a part of the system or its administrator's addition.
if(IS_ABSOLUTE "${PULSE_SYSCONFDIR}")
  set(sysconfdir "${PULSE_SYSCONFDIR}")
elseif(CMAKE_INSTALL_PREFIX MATCHES "^/*(usr/*(local/*)?)?$")
  set(sysconfdir "/etc")
else()
  set(sysconfdir "${CMAKE_INSTALL_PREFIX}/${PULSE_SYSCONFDIR}")
endif()

# An update must not undo what the administrator has set.
set(configuration "$ENV{DESTDIR}${sysconfdir}/pulse-canceld/pulse-canceld.conf")
if(EXISTS "${configuration}")
  message(STATUS "Kept as it is: ${configuration}")
else()
  file(INSTALL "${PULSE_SOURCE_DIR}/etc/pulse-canceld.conf" DESTINATION "${sysconfdir}/pulse-canceld")
endif()

# The service in the tree is the one for the prefix /usr.
if(IS_ABSOLUTE "${PULSE_BINDIR}")
  set(bindir "${PULSE_BINDIR}")
else()
  set(bindir "${CMAKE_INSTALL_PREFIX}/${PULSE_BINDIR}")
endif()
set(installed "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}/lib/systemd/system/pulse-canceld.service")
file(READ "${PULSE_SOURCE_DIR}/packaging/systemd/pulse-canceld.service" service)
string(REPLACE "/usr/bin/pulse-cancel" "${bindir}/pulse-cancel" service "${service}")
string(REPLACE "/usr/share/pulse-canceld" "${CMAKE_INSTALL_PREFIX}/share/pulse-canceld" service "${service}")
message(STATUS "Installing: ${installed}")
file(WRITE "${installed}" "${service}")
list(APPEND CMAKE_INSTALL_MANIFEST_FILES "${CMAKE_INSTALL_PREFIX}/lib/systemd/system/pulse-canceld.service")
file(CHMOD "${installed}" PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
