"""Asterisk's English telephone prompts, recorded by one professional speaker (Digium; CC BY-SA 3.0), with their text.

crc32(prompt id) % 10 == 0 is test. And, to be heard alone, the training prompts with the French and Spanish ones.
"""

import shutil

from recipes import source


def main() -> None:
    folder = source.target("spoken-prompts")
    local = source.required("asterisk_prompts", "the Debian packages asterisk-core-sounds-en, -es and -fr, 8 kHz")
    rows = source.read_csv(local / "en.csv")
    held = {row["prompt_id"] for row in rows if row["split"] == "test"}
    heard = []
    for language in ("en", "es", "fr"):
        shutil.copyfile(local / f"{language}.zip", folder / f"{language}.zip")
        known = source.read_csv(local / f"{language}.csv")
        heard += [[f"{language}.zip!{row['audio']}"] for row in known if row["prompt_id"] not in held]
    source.write_csv(folder / "heard.csv", ["recording"], heard)
    table = [[f"en.zip!{row['audio']}", row["text"], row["prompt_id"], row["split"]] for row in rows]
    source.write_csv(folder / "prompts.csv", ["recording", "words", "prompt_id", "split"], table)
    print(f"written to {folder}: {len(table)} prompts, {len(heard)} to be heard alone")


if __name__ == "__main__":
    main()
