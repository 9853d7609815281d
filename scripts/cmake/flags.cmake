# Every compiler and linker flag, in two interface targets: outrider_machine_code for all that is compiled here, which says
# how code is made, and outrider_flags for our own code, which adds the language and the warnings.
# Release is what is installed: -O2, link-time optimisation, hardened. Debug (dev, asan, tsan, fuzz) is -O1, which
# keeps stack traces true and _FORTIFY_SOURCE possible.
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g")
set(CMAKE_C_FLAGS_DEBUG "-O1 -g")
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1")
set(CMAKE_C_FLAGS_RELEASE "-O2 -g1")

add_library(outrider_machine_code INTERFACE)
target_compile_options(outrider_machine_code INTERFACE -fPIE -fstack-protector-strong -fno-plt -Wa,--noexecstack)
target_link_options(outrider_machine_code INTERFACE -pie -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,--as-needed)

add_library(outrider_flags INTERFACE)
target_link_libraries(outrider_flags INTERFACE outrider_machine_code)
target_include_directories(outrider_flags INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR}/generated)
target_compile_options(outrider_flags INTERFACE -Wall -Wextra -Wpedantic -Werror -fno-rtti)
target_compile_definitions(outrider_flags INTERFACE _GLIBCXX_ASSERTIONS)

if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(outrider_flags INTERFACE -Wno-unknown-warning-option)
endif()

if(OUTRIDER_SANITIZE)
  # vptr checks need RTTI, which our own code does without.
  set(sanitize -fsanitize=${OUTRIDER_SANITIZE} -fno-sanitize-recover=all)
  if(OUTRIDER_SANITIZE MATCHES "undefined")
    list(APPEND sanitize -fno-sanitize=vptr)
  endif()
  if(OUTRIDER_FUZZ)
    list(APPEND sanitize -fsanitize=fuzzer-no-link)
  endif()
  target_compile_options(outrider_machine_code INTERFACE ${sanitize} -fno-omit-frame-pointer)
  target_link_options(outrider_machine_code INTERFACE ${sanitize})
elseif(CMAKE_BUILD_TYPE STREQUAL "Release")
  target_compile_options(outrider_machine_code INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
endif()

# Profile-guided optimisation: build with `generate`, train (scripts/pgo), build with `use`. The profile of a file is
# found by its object's path within the build folder. What training did not run is compiled as without one, not for size.
set(profile -fprofile-prefix-path=${PROJECT_BINARY_DIR})
if(OUTRIDER_PGO STREQUAL "generate")
  list(APPEND profile -fprofile-generate=${OUTRIDER_PROFILE} -fprofile-update=prefer-atomic)
elseif(OUTRIDER_PGO STREQUAL "use")
  list(APPEND profile -fprofile-use=${OUTRIDER_PROFILE} -fprofile-partial-training -Wno-missing-profile)
endif()
if(OUTRIDER_PGO)
  target_compile_options(outrider_machine_code INTERFACE ${profile})
  target_link_options(outrider_machine_code INTERFACE ${profile})
endif()

# Link-time optimisation for the installed executable alone: objects are fat, so tests link the ordinary code.
set(OUTRIDER_LTO OFF)
if(CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT OUTRIDER_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(OUTRIDER_LTO ON)
  target_compile_options(outrider_machine_code INTERFACE -flto=auto -ffat-lto-objects)
  target_link_options(outrider_machine_code INTERFACE $<IF:$<BOOL:$<TARGET_PROPERTY:OUTRIDER_LTO>>,-flto=auto,-fno-lto>)
endif()
