//! llama.cpp's names for the mixtures of block types that a file may hold.

/// `(general.file_type, name)`: those that we write, and those that we can read.
const FILE_TYPES: [(u32, &str); 18] = [
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K"),
    (11, "Q3_K_S"),
    (12, "Q3_K_M"),
    (13, "Q3_K_L"),
    (14, "Q4_K_S"),
    (15, "Q4_K_M"),
    (16, "Q5_K_S"),
    (17, "Q5_K_M"),
    (18, "Q6_K"),
    (21, "Q2_K_S"),
    (32, "BF16"),
];

pub fn file_type_name(id: u32) -> Option<&'static str> {
    FILE_TYPES.iter().find(|(known, _)| *known == id).map(|(_, name)| *name)
}

pub fn file_type_id(name: &str) -> Option<u32> {
    FILE_TYPES.iter().find(|(_, known)| *known == name).map(|(id, _)| *id)
}
