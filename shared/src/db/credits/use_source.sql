-- use_source: takes the team's own credits as the source of all, once they were tried; answers warnings.
SELECT * FROM punchcard.use_credit_source($1, $2, $3, $4, $5::text::jsonb, p_force => $6)
