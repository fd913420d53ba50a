-- An idempotency key, or what it was used for, as it is kept: 128 bits of its SHA-256. Only the account
-- itself could make two of its own meet, and would be told that it used a key twice. One expression, which
-- PostgreSQL parses here and puts in place of each call: parsed and planned for each purchase it would cost
-- more than all else that a key costs.
CREATE OR REPLACE FUNCTION punchcard.key_digest(p_text text) RETURNS uuid
    LANGUAGE sql STABLE
    RETURN encode(substring(sha256(convert_to(p_text, 'UTF8')) FROM 1 FOR 16), 'hex')::uuid;
