//! What anyone can say of a queue who has its log and nothing else.

pub mod verify;
