// What most files of this folder include and none is quick to compile.
#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
