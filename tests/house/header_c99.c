#include "dsv/dsv.h"
