-- Remove the messages in `held`; returns their ids.
DELETE FROM {messages} AS message USING held WHERE message.seq = held.seq
RETURNING message.message_id
