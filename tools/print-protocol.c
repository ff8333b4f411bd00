/* print-protocol.c - prints the structs of defs/messages.def as an RFC 4506 (.x) description, to be
 * compared with libvirt's, or compiled by rpcgen (tests/unit/test_wire_oracle). */
#include "wire/schema.h"

#include <stdio.h>

static void print_field(const vz_field *field)
{
    const char *name = field->name;
    const char *sub = field->sub ? field->sub->name : "";
    uint32_t max = field->max;
    switch (field->kind) {
    case VZ_FIELD_INT:
        printf("    int %s;\n", name);
        break;
    case VZ_FIELD_UINT:
        printf("    unsigned int %s;\n", name);
        break;
    case VZ_FIELD_HYPER:
        printf("    hyper %s;\n", name);
        break;
    case VZ_FIELD_UHYPER:
        printf("    unsigned hyper %s;\n", name);
        break;
    case VZ_FIELD_STRING:
        printf("    nonnull_string %s;\n", name);
        break;
    case VZ_FIELD_OPTIONAL_STRING:
        printf("    nonnull_string *%s;\n", name);
        break;
    case VZ_FIELD_UUID:
        printf("    opaque %s[16];\n", name);
        break;
    case VZ_FIELD_BYTES:
        printf("    opaque %s<%u>;\n", name, max);
        break;
    case VZ_FIELD_CHARS:
        printf("    char %s[%u];\n", name, max);
        break;
    case VZ_FIELD_CHAR_LIST:
        printf("    char %s<%u>;\n", name, max);
        break;
    case VZ_FIELD_SUB:
        printf("    %s %s;\n", sub, name);
        break;
    case VZ_FIELD_OPTIONAL_SUB:
        printf("    %s *%s;\n", sub, name);
        break;
    case VZ_FIELD_LIST:
        printf("    %s %s<%u>;\n", sub, name, max);
        break;
    case VZ_FIELD_INT_LIST:
        printf("    int %s<%u>;\n", name, max);
        break;
    case VZ_FIELD_UINT_LIST:
        printf("    unsigned int %s<%u>;\n", name, max);
        break;
    case VZ_FIELD_UHYPER_LIST:
        printf("    unsigned hyper %s<%u>;\n", name, max);
        break;
    case VZ_FIELD_STRING_LIST:
        printf("    nonnull_string %s<%u>;\n", name, max);
        break;
    }
}

static void print_tparam(void)
{
    printf("union tparam_value switch (int type) {\n"
           "case %d: int i;\n"
           "case %d: unsigned int u;\n"
           "case %d: hyper l;\n"
           "case %d: unsigned hyper ul;\n"
           "case %d: double d;\n"
           "case %d: int b;\n"
           "case %d: nonnull_string s;\n"
           "};\n"
           "struct tparam {\n"
           "    nonnull_string field;\n"
           "    tparam_value value;\n"
           "};\n",
           VZ_TPARAM_INT, VZ_TPARAM_UINT, VZ_TPARAM_LLONG, VZ_TPARAM_ULLONG, VZ_TPARAM_DOUBLE,
           VZ_TPARAM_BOOLEAN, VZ_TPARAM_STRING);
}

int main(void)
{
    printf("typedef string nonnull_string<%d>;\n", VZ_WIRE_MAX_STRING);
    print_tparam();
    for (const vz_schema *const *schema = vz_schemas; *schema; schema++) {
        const vz_field *field = (*schema)->fields();
        if (!field->name)
            continue; /* `none`: RFC 4506 has no empty struct */
        printf("struct %s {\n", (*schema)->name);
        for (; field->name; field++)
            print_field(field);
        printf("};\n");
    }
    return 0;
}
