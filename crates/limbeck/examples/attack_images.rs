//! Attacks images from a file on a model from a file: what `benches/peers/attacks.py` holds other programs against.
//!
//! `attack_images MODEL IMAGES` reads a classifier and a safetensors file with `images` (f32, `[batch, 3, height, width]` in `[0, 1]`) and
//! `labels` (i64). Each line of its input is an attack's settings as JSON, or `"logits"`; each line that it prints is JSON, too.

use std::error::Error;
use std::io::BufRead as _;
use std::path::Path;
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use limbeck::attack::{AttackConfig, Batches, craft};
use limbeck::network::{Model as _, TrainedClassifier};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

/// Images attacked at once.
const BATCH: usize = 128;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, images] = arguments.as_slice() else {
        return Err("usage: attack_images MODEL IMAGES".into());
    };
    let device = limbeck::device("flex")?;
    let model = TrainedClassifier::load(Path::new(model), &device)?;
    let batches = read(Path::new(images), &device)?;
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let answer = match request {
            Value::String(_) => json!({ "logits": logits(&model, &batches)? }),
            settings => attacked(&model, &batches, &serde_json::from_value(settings)?)?,
        };
        write_line(&answer)?;
    }
    Ok(())
}

fn write_line(answer: &Value) -> Result<(), Box<dyn Error>> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    Ok(out.flush()?)
}

type Batch = (Tensor<4>, Vec<u32>);

fn read(path: &Path, device: &Device) -> Result<Vec<Batch>, Box<dyn Error>> {
    let bytes = std::fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let (images, labels) = (file.tensor("images")?, file.tensor("labels")?);
    let [_, channels, height, width] = <[usize; 4]>::try_from(images.shape())?;
    let pixels = numbers(&images, f32::from_le_bytes);
    let labels: Vec<u32> =
        numbers(&labels, i64::from_le_bytes).into_iter().map(u32::try_from).collect::<Result<_, _>>()?;
    let batches = pixels.chunks(BATCH * channels * height * width).zip(labels.chunks(BATCH));
    Ok(batches
        .map(|(pixels, labels)| {
            let data = TensorData::new(pixels.to_vec(), [labels.len(), channels, height, width]);
            (Tensor::from_data(data, device), labels.to_vec())
        })
        .collect())
}

fn numbers<T, const N: usize>(tensor: &TensorView<'_>, read: fn([u8; N]) -> T) -> Vec<T> {
    tensor.data().as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect()
}

fn logits(model: &TrainedClassifier, batches: &[Batch]) -> Result<Vec<f32>, Box<dyn Error>> {
    let mut all = Vec::new();
    for (images, _) in batches {
        all.extend(
            model
                .logits(images.clone())
                .into_data()
                .try_into_vec::<f32>()
                .map_err(|error| format!("{error:?}"))?,
        );
    }
    Ok(all)
}

/// Which images are still read as their label, how far each was moved, and the seconds that it took.
fn attacked(
    model: &TrainedClassifier,
    batches: &[Batch],
    config: &AttackConfig,
) -> Result<Value, Box<dyn Error>> {
    config.check("attack")?;
    let (built, threat, start) = (config.build(), config.threat(), Instant::now());
    let read = |batch: usize| Ok(batches[batch].clone());
    let fitted = built.fit(model, threat, &Batches { count: batches.len(), read: &read })?;
    let attack = fitted.as_deref().unwrap_or(&*built);
    let mut results = Vec::new();
    for (images, labels) in batches {
        results.push((craft(attack, model, threat, images.clone(), labels)?, labels.clone()));
    }
    let seconds = start.elapsed().as_secs_f64();
    let classes = model.spec().classes.len();
    let mut right = Vec::new();
    for (row, (_, label)) in logits(model, &results)?
        .chunks(classes)
        .zip(results.iter().flat_map(|(images, labels)| labels.iter().map(move |label| (images, label))))
    {
        right.push(
            row.iter()
                .enumerate()
                .all(|(class, logit)| class == *label as usize || *logit < row[*label as usize]),
        );
    }
    let mut lengths = Vec::new();
    for ((moved, _), (images, _)) in results.iter().zip(batches) {
        let change = (moved.clone() - images.clone()).flatten::<2>(1, 3);
        let norms = change.square().sum_dim(1).sqrt().into_data();
        lengths.extend(norms.try_into_vec::<f32>().map_err(|error| format!("{error:?}"))?);
    }
    Ok(json!({ "right": right, "l2": lengths, "seconds": seconds }))
}
