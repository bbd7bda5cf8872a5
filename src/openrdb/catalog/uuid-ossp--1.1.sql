-- uuid-ossp's functions in SQL: the bundles' own module needs the OSSP library, which hosts rarely
-- have and no package brings. The same names, types and results, so that dumps fit both ways. Only
-- the node of version 1 is not a network card's address but stands for the server.
--
-- This runs as the superuser in a schema that may hold anything. Every function and operator is
-- called with its exact argument types, so that the one of pg_catalog is taken, and the bodies are
-- bound to what they mean here and now.

CREATE FUNCTION uuid_nil() RETURNS uuid
IMMUTABLE STRICT PARALLEL SAFE LANGUAGE SQL
RETURN '00000000-0000-0000-0000-000000000000'::uuid;

CREATE FUNCTION uuid_ns_dns() RETURNS uuid
IMMUTABLE STRICT PARALLEL SAFE LANGUAGE SQL
RETURN '6ba7b810-9dad-11d1-80b4-00c04fd430c8'::uuid;

CREATE FUNCTION uuid_ns_url() RETURNS uuid
IMMUTABLE STRICT PARALLEL SAFE LANGUAGE SQL
RETURN '6ba7b811-9dad-11d1-80b4-00c04fd430c8'::uuid;

CREATE FUNCTION uuid_ns_oid() RETURNS uuid
IMMUTABLE STRICT PARALLEL SAFE LANGUAGE SQL
RETURN '6ba7b812-9dad-11d1-80b4-00c04fd430c8'::uuid;

CREATE FUNCTION uuid_ns_x500() RETURNS uuid
IMMUTABLE STRICT PARALLEL SAFE LANGUAGE SQL
RETURN '6ba7b814-9dad-11d1-80b4-00c04fd430c8'::uuid;

-- Version 1: the low, middle and high part of the time, a random clock sequence, the node. The time
-- counts 100 ns since 1582; the highest bit that is added to it is the version.

CREATE FUNCTION uuid_generate_v1() RETURNS uuid
VOLATILE STRICT PARALLEL SAFE LANGUAGE SQL
BEGIN ATOMIC
  SELECT encode(substr(t, 5, 4) || substr(t, 3, 2) || substr(t, 1, 2) || substr(r, 9, 2)
                || set_byte(n, 0, get_byte(n, 0) | 1), 'hex'::text)::uuid
  FROM (SELECT int8send((extract(epoch FROM clock_timestamp()) * '10000000'::numeric)::bigint
                        + '122192928000000000'::bigint + '1152921504606846976'::bigint) AS t,
               uuid_send(gen_random_uuid()) AS r,
               substr(decode(md5(int8send(system_identifier)), 'hex'::text), 1, 6) AS n
        FROM pg_control_system()) AS made;
END;

CREATE FUNCTION uuid_generate_v1mc() RETURNS uuid
VOLATILE STRICT PARALLEL SAFE LANGUAGE SQL
BEGIN ATOMIC
  SELECT encode(substr(t, 5, 4) || substr(t, 3, 2) || substr(t, 1, 2) || substr(r, 9, 2)
                || substr(set_byte(r, 10, get_byte(r, 10) | 1), 11, 6), 'hex'::text)::uuid
  FROM (SELECT int8send((extract(epoch FROM clock_timestamp()) * '10000000'::numeric)::bigint
                        + '122192928000000000'::bigint + '1152921504606846976'::bigint) AS t,
               uuid_send(gen_random_uuid()) AS r) AS made;
END;

CREATE FUNCTION uuid_generate_v3(namespace uuid, name text) RETURNS uuid
IMMUTABLE STRICT PARALLEL SAFE LANGUAGE SQL
BEGIN ATOMIC
  SELECT encode(set_byte(set_byte(h, 6, get_byte(h, 6) & 15 | 48),
                         8, get_byte(h, 8) & 63 | 128), 'hex'::text)::uuid
  FROM (SELECT decode(md5(uuid_send($1) || convert_to($2, getdatabaseencoding())), 'hex'::text)
        AS h) AS hashed;
END;

CREATE FUNCTION uuid_generate_v4() RETURNS uuid
VOLATILE STRICT PARALLEL SAFE LANGUAGE internal AS 'gen_random_uuid';

-- pgcrypto's digest, from its module, as the server has no SHA-1 of its own.
CREATE FUNCTION uuid_ossp_digest(bytea, text) RETURNS bytea
IMMUTABLE STRICT PARALLEL SAFE LANGUAGE C AS '$libdir/pgcrypto', 'pg_digest';

CREATE FUNCTION uuid_generate_v5(namespace uuid, name text) RETURNS uuid
IMMUTABLE STRICT PARALLEL SAFE LANGUAGE SQL
BEGIN ATOMIC
  SELECT encode(set_byte(set_byte(h, 6, get_byte(h, 6) & 15 | 80),
                         8, get_byte(h, 8) & 63 | 128), 'hex'::text)::uuid
  FROM (SELECT substr(uuid_ossp_digest(uuid_send($1) || convert_to($2, getdatabaseencoding()),
                                       'sha1'::text), 1, 16) AS h) AS hashed;
END;
