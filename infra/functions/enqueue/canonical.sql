-- A JSON value as text that is the same whatever its spacing and the order of its keys, and not much longer
-- than it was sent: as jsonb writes it, but for numbers with an exponent, of which jsonb would write every
-- digit (1e308 has 309). These count as they are written, so that 1e2 is neither 100 nor 1E2; other numbers
-- count digit for digit too, so that 1.0 is not 1.00.
CREATE OR REPLACE FUNCTION punchcard.canonical(p_value json) RETURNS text
    LANGUAGE sql AS $$
    -- As strings that nobody sends by chance. Within a string the quotation marks end it, and what comes then
    -- is no JSON.
    SELECT regexp_replace(p_value::text, '(^|[[:space:][,:])([-0-9.]+[eE][-+0-9]+)',
                          E'\\1"\\u0001\\2"', 'g')::jsonb::text
$$;
