// The commands of `outrider` as functions: main.cc parses arguments and calls one of them.
// What a script may read goes to standard output, words for people to standard error. Each returns
// the exit code.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/load.h"
#include "proxy/explain.h"
#include "proxy/server.h"

namespace outrider::cli {

inline constexpr int kOk = 0;
inline constexpr int kRuntimeError = 1;
inline constexpr int kBadConfig = 2;
inline constexpr int kNothingFound = 3;  // `why` and `explain`
inline constexpr int kUsage = 64;        // EX_USAGE of sysexits.h

int run(RunOptions options, bool verbose);
int check(const std::vector<std::string>& paths, bool strict, bool json);
int explain(const std::vector<std::string>& paths, const ExplainRequest& request);
int config(const std::vector<std::string>& paths, bool origins);
int schema();
int why(std::string_view word);
int version();

// What `run` and `check` report beyond the loader: routes that are never reached. In file and line
// order, among the others.
void add_shadowed_routes(config::Loaded& loaded);

}  // namespace outrider::cli
