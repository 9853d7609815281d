# Compile through ccache where it is installed; all presets share its cache.
find_program(OUTRIDER_CCACHE ccache)
mark_as_advanced(OUTRIDER_CCACHE)
if(OUTRIDER_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_C_COMPILER_LAUNCHER ${OUTRIDER_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${OUTRIDER_CCACHE})
endif()
