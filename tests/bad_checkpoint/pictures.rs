//! Pictures that a model is not asked about in a way that it knows.

use serde_json::json;

use super::{CONFIG, Checkpoint, DATA, refused, refused_when};

#[test]
fn what_sizes_the_pictures_of_the_other_family_is_refused() {
    for command in ["ask", "describe"] {
        refused_when(
            &[command, "--soft-tokens", "70", "x"],
            &Checkpoint::copy(),
            CONFIG,
            &["--soft-tokens", "Gemma 3n", "--resolution"],
        );
        let gemma4 = Checkpoint::gemma4();
        refused_when(
            &[command, "--resolution", "256", "x"],
            &gemma4,
            CONFIG,
            &["--resolution", "Gemma 4", "--soft-tokens"],
        );
        refused_when(
            &[command, "--soft-tokens", "71", "x"],
            &gemma4,
            CONFIG,
            &["71", "70, 140, 280, 560 or 1120"],
        );
    }
}

#[test]
fn a_processor_file_of_a_gemma_3n_beside_a_gemma_4_is_told() {
    let checkpoint = Checkpoint::gemma4();
    checkpoint.edit_json("processor_config.json", |file| {
        file["image_seq_length"] = json!(256);
        file["image_processor"] = json!({"size": {"height": 768, "width": 768}});
    });
    refused(
        &checkpoint,
        DATA,
        &["processor_config.json", "image_seq_length", "256", "280"],
    );
}
