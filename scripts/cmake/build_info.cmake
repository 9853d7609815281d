# config/build_info.h: version and commit, compiled in. The commit is read at each build, and the header is only
# rewritten when it changed, so nothing is compiled again for it otherwise.
# Run as a script (cmake -P) it writes the header; included, it makes the target that does.
if(CMAKE_SCRIPT_MODE_FILE)
  execute_process(COMMAND git -C ${SOURCE} rev-parse --short=12 HEAD OUTPUT_VARIABLE COMMIT
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(failed)
    set(COMMIT unknown)
  endif()
  configure_file(${SOURCE}/scripts/cmake/build_info.h.in ${OUTPUT} @ONLY)
  return()
endif()

# The version of a library whose headers do not hold it.
find_package(PkgConfig QUIET)
foreach(library YAML_CPP:yaml-cpp RE2:re2)
  string(REPLACE ":" ";" library ${library})
  list(GET library 0 name)
  list(GET library 1 package)
  if(PkgConfig_FOUND)
    pkg_check_modules(OUTRIDER_${name} QUIET ${package})
  endif()
  if(NOT OUTRIDER_${name}_VERSION)
    set(OUTRIDER_${name}_VERSION unknown)
  endif()
endforeach()

set(OUTRIDER_BUILD_INFO ${PROJECT_BINARY_DIR}/generated/config/build_info.h)
add_custom_target(
  outrider_build_info
  COMMAND ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR} -DOUTPUT=${OUTRIDER_BUILD_INFO}
          -DVERSION=${PROJECT_VERSION} -DYAML_CPP=${OUTRIDER_YAML_CPP_VERSION}
          -DRE2=${OUTRIDER_RE2_VERSION} -P ${CMAKE_CURRENT_LIST_FILE}
  BYPRODUCTS ${OUTRIDER_BUILD_INFO}
  COMMENT "Reading the commit")
