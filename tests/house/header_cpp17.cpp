#include "dsv/dsv.hpp"
