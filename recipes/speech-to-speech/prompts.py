"""Telephone prompts in English -> the same prompts in French: `python -m recipes.speech-to-speech.prompts`.

Asterisk's prompts, one professional speaker a language (Digium; CC BY-SA 3.0), paired by their id; crc32(id) % 10 == 0
is test. Pairs of which one side lasts longer than MOST_S are left out and counted.
"""

import shutil

from recipes import source

MOST_S = 5.0


def main() -> None:
    folder = source.target("speech-to-speech")
    local = source.required("asterisk_prompts", "the Debian packages asterisk-core-sounds-en and -fr, 8 kHz")
    english, french = (
        {row["prompt_id"]: row for row in source.read_csv(local / f"{name}.csv")} for name in ("en", "fr")
    )
    pairs = [(row, french[key]) for key, row in english.items() if key in french]
    kept = [pair for pair in pairs if max(float(row["seconds"]) for row in pair) <= MOST_S]
    for name in ("en", "fr"):
        shutil.copyfile(local / f"{name}.zip", folder / f"{name}.zip")
    table = [
        [f"en.zip!{one['audio']}", f"fr.zip!{other['audio']}", one["text"], other["text"], one["split"]]
        for one, other in kept
    ]
    source.write_csv(folder / "prompts.csv", ["english", "french", "text_en", "text_fr", "split"], table)
    print(f"written to {folder}: {len(kept)} pairs, {len(pairs) - len(kept)} longer than {MOST_S:g} s left out")


if __name__ == "__main__":
    main()
