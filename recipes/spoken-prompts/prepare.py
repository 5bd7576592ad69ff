"""Asterisk's English telephone prompts, recorded by one professional speaker (Digium; CC BY-SA 3.0), with their text.

crc32(prompt id) % 10 == 0 is test.
"""

import shutil

from recipes import source


def main() -> None:
    folder = source.target("spoken-prompts")
    local = source.required("asterisk_prompts", "the Debian packages asterisk-core-sounds-en and -en-wav, 8 kHz")
    shutil.copyfile(local / "en.zip", folder / "en.zip")
    rows = source.read_csv(local / "en.csv")
    table = [[f"en.zip!{row['audio']}", row["text"], row["prompt_id"], row["split"]] for row in rows]
    source.write_csv(folder / "prompts.csv", ["recording", "words", "prompt_id", "split"], table)
    print(f"written to {folder}: {len(table)} prompts")


if __name__ == "__main__":
    main()
