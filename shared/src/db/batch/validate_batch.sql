-- validate_batch: what the purchase of a batch would cost and leave; nothing is bought.
SELECT price, available_after FROM punchcard.validate_batch($1, $2::text::json)
