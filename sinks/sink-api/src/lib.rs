//! What a sink must do, the differ and writer loop that drives it, and the conformance suite it must pass.
