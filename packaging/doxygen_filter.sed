# dsv.h's plain comments as Doxygen's: the file's, those before a declaration, those behind a member.
1s|^/\*|/** @file\n *|
\|^/\* -* [a-z ]* \*/$|d
2,$s|^\( *\)/\* |\1/** |
s|^\(..*[;,{]  *\)/\* |\1/**< |
s|^\(  *[A-Z_0-9]* = [0-9]*  *\)/\* |\1/**< |
# Two dots would end a list.
s|/\*\*< \.\. |/**< |
