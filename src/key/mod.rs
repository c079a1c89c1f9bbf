//! One walk of a node → its digest, its explanation, why it changed.
