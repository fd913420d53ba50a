-- resend: a message is due again now, whatever became of it.
UPDATE punchcard.deliveries SET next_at = now(), delivered_at = NULL WHERE id = $1 RETURNING id
