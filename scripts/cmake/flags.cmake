# outrider_flags: every compiler and linker flag of our own code, in one interface target.
# Release is what is installed: -O2, link-time optimisation, hardened. Debug (dev, asan, tsan, fuzz) is -O1, which
# keeps stack traces true and _FORTIFY_SOURCE possible.
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g")
set(CMAKE_C_FLAGS_DEBUG "-O1 -g")
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1")
set(CMAKE_C_FLAGS_RELEASE "-O2 -g1")

add_library(outrider_flags INTERFACE)
target_include_directories(outrider_flags INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR}/generated)
target_compile_options(
  outrider_flags
  INTERFACE -Wall
            -Wextra
            -Wpedantic
            -Werror
            -fPIE
            -fno-rtti
            -fstack-protector-strong
            -fno-plt
            -Wa,--noexecstack)
target_compile_definitions(outrider_flags INTERFACE _GLIBCXX_ASSERTIONS)
target_link_options(outrider_flags INTERFACE -pie -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,--as-needed)

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
  target_compile_options(outrider_flags INTERFACE ${sanitize} -fno-omit-frame-pointer)
  target_link_options(outrider_flags INTERFACE ${sanitize})
elseif(CMAKE_BUILD_TYPE STREQUAL "Release")
  target_compile_options(outrider_flags INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
endif()

# Link-time optimisation for the installed executable alone: objects are fat, so tests link the ordinary code.
set(OUTRIDER_LTO OFF)
if(CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT OUTRIDER_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(OUTRIDER_LTO ON)
  target_compile_options(outrider_flags INTERFACE -flto=auto -ffat-lto-objects)
  target_link_options(outrider_flags INTERFACE $<IF:$<BOOL:$<TARGET_PROPERTY:OUTRIDER_LTO>>,-flto=auto,-fno-lto>)
endif()
