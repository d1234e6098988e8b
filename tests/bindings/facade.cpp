#include "bindings/facade.h"
