//! Behaviour of a p2m: who owns what is mapped, unmapped and given back.
