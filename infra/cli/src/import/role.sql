-- role: who we are to the database.
SELECT current_user::text
