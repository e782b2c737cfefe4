/* The few declarations of Node-API that our addons use; its ABI is stable, so no header of Node is needed to build. */
#ifndef AEGIS_NAPI_H
#define AEGIS_NAPI_H
#include <stddef.h>
#include <stdint.h>

typedef struct napi_env_ *napi_env;
typedef struct napi_value_ *napi_value;
typedef struct napi_callback_info_ *napi_callback_info;
typedef napi_value (*napi_callback)(napi_env, napi_callback_info);

/* Each answers 0 when it worked. */
extern int napi_get_cb_info(napi_env, napi_callback_info, size_t *count, napi_value *arguments, napi_value *self, void **data);
extern int napi_get_value_string_utf8(napi_env, napi_value, char *buffer, size_t size, size_t *length);
extern int napi_get_value_bool(napi_env, napi_value, _Bool *);
extern int napi_create_int32(napi_env, int32_t, napi_value *);
extern int napi_create_function(napi_env, const char *name, size_t length, napi_callback, void *data, napi_value *);
extern int napi_set_named_property(napi_env, napi_value object, const char *name, napi_value);

/* Makes `function` the addon's property `name`. */
#define AEGIS_ADDON(name, function)                                                                       \
  __attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports) { \
    napi_value value;                                                                                      \
    if (!napi_create_function(env, name, sizeof name - 1, function, NULL, &value)) napi_set_named_property(env, exports, name, value); \
    return exports;                                                                                        \
  }

#endif
