/* messages_begin.h - before messages.def: kinds of row that the includer does not want are empty.
 * No #pragma once: it is included once for each use of the table. */
#ifndef LIMIT
#define LIMIT(name, count)
#endif
#ifndef STRUCT
#define STRUCT(name)
#endif
#ifndef INT
#define INT(name)
#endif
#ifndef UINT
#define UINT(name)
#endif
#ifndef HYPER
#define HYPER(name)
#endif
#ifndef UHYPER
#define UHYPER(name)
#endif
#ifndef STRING
#define STRING(name)
#endif
#ifndef OPTIONAL_STRING
#define OPTIONAL_STRING(name)
#endif
#ifndef UUID
#define UUID(name)
#endif
#ifndef BYTES
#define BYTES(name, limit)
#endif
#ifndef CHARS
#define CHARS(name, length)
#endif
#ifndef CHAR_LIST
#define CHAR_LIST(name, limit)
#endif
#ifndef SUB
#define SUB(type, name)
#endif
#ifndef OPTIONAL_SUB
#define OPTIONAL_SUB(type, name)
#endif
#ifndef LIST
#define LIST(type, name, limit)
#endif
#ifndef INT_LIST
#define INT_LIST(name, limit)
#endif
#ifndef UINT_LIST
#define UINT_LIST(name, limit)
#endif
#ifndef UHYPER_LIST
#define UHYPER_LIST(name, limit)
#endif
#ifndef STRING_LIST
#define STRING_LIST(name, limit)
#endif
#ifndef END
#define END(name)
#endif
