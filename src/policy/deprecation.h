/* What the headers Deprecation (RFC 9745) and Sunset (RFC 8594) say, in words. Pure. */
#ifndef PULSE_POLICY_DEPRECATION_H
#define PULSE_POLICY_DEPRECATION_H

#define DEPRECATION_TEXT_MAX 256

/* " since 2025-01-01, to be removed on Thu, 31 Dec 2026 23:59:59 GMT": as much of it as the headers
 * say. Either may be NULL. What is no date of its RFC is repeated as it came, but for `api_key`,
 * which is masked ("" = none). */
void deprecation_describe(const char *deprecation, const char *sunset, const char *api_key,
                          char ret_text[static DEPRECATION_TEXT_MAX]);

#endif
