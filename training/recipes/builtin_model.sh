#!/bin/sh
# Makes the built-in model from HDR panoramas, photos and TAESD. About six hours on one CPU core.
#
# Usage, from the root of the repository: training/recipes/builtin_model.sh PANORAMAS PHOTOS TAESD WORK
#   PANORAMAS  folder of equirectangular *.hdr files to train on
#   PHOTOS     folder of ordinary *.jpg photos; it may be empty
#   TAESD      folder with taesd_encoder.safetensors and taesd_decoder.safetensors
#   WORK       folder for caches and trained parts; the model comes to lie in WORK/weights
#
# A run that was cut off does not repeat the steps that are complete. Smaller runs: SHARDS and SHARD_SIZE
# (samples), MINUTES_UNET, MINUTES_AUTOENCODER, MINUTES_TONE (each of three nets), MINUTES_PHONES,
# MINUTES_HIGHLIGHTS, MINUTES_TINTS, DECODER_STEPS, PYTHON.
set -eu
[ $# -eq 4 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2; }
panoramas=$1 photos=$2 taesd=$3 work=$4
shards=${SHARDS:-120} size=${SHARD_SIZE:-512}
step() { echo "== $1"; shift; "${PYTHON:-python}" -m "training.builtin.$@"; }
once() { # FILE STEP...: a step that makes one file, under its name only when it is complete
    file=$1; shift
    [ -e "$file" ] || { step "$@" --output "$file.part"; mv "$file.part" "$file"; }
}

mkdir -p "$work"
step "samples as pictures" cache --panoramas "$panoramas" --photos "$photos" --output "$work/pictures" \
    --shards "$shards" --shard-size "$size"
step "samples that no net learns" cache --panoramas "$panoramas" --photos "$photos" --output "$work/unseen" \
    --shards $(((shards + 4) / 5)) --shard-size "$size" --seed 1
step "samples of phones" cache --panoramas "$panoramas" --photos "$photos" --output "$work/phones" \
    --shards $(((shards + 1) / 2)) --shard-size "$size" --mix phones --seed 2
step "samples as latents, 64 pixels" latents --pictures "$work/pictures" --teacher "$taesd" \
    --output "$work/latents" --side 64
step "samples as latents, 128 pixels" latents --pictures "$work/pictures" --teacher "$taesd" \
    --output "$work/latents" --side 128 --shards $(((shards + 6) / 7))
once "$work/unet.safetensors" "UNet" train --cache "$work/latents" --minutes "${MINUTES_UNET:-120}" \
    --decoder-steps "${DECODER_STEPS:-2000}"
once "$work/tone.safetensors" "tone nets" train_tone --pictures "$work/pictures" --minutes "${MINUTES_TONE:-3}"
once "$work/tone_phones.safetensors" "phones" train_phones --phones "$work/phones" --pictures "$work/unseen" \
    --tone-net "$work/tone.safetensors" --minutes "${MINUTES_PHONES:-5}"
once "$work/highlights.safetensors" "highlight net" train_highlights --pictures "$work/pictures" \
    --tone-net "$work/tone_phones.safetensors" --minutes "${MINUTES_HIGHLIGHTS:-18}"
once "$work/tints.safetensors" "tint net" train_tints --pictures "$work/pictures" \
    --minutes "${MINUTES_TINTS:-12}"
once "$work/autoencoder.safetensors" "autoencoder" train_autoencoder --panoramas "$panoramas" \
    --photos "$photos" --teacher "$taesd" --minutes "${MINUTES_AUTOENCODER:-30}"
step "files of the model" export --unet "$work/unet.safetensors" --tone-net "$work/tone_phones.safetensors" \
    --highlight-net "$work/highlights.safetensors" --tint-net "$work/tints.safetensors" \
    --autoencoder "$work/autoencoder.safetensors" \
    --output "$work/weights"
