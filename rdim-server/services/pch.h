// What every file of this folder includes and none is quick to compile.
#pragma once

#include <grpcpp/grpcpp.h>

#include "dims/v1/access.grpc.pb.h"
#include "dims/v1/dims.grpc.pb.h"
