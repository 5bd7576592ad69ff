"""Video games bought at Amazon (McAuley et al.; the sequences of SASRec's repository, half of the users): user, item,
position in the user's order, and a leave-one-out split: the last purchase is test, the one before it validation."""

import shutil

from recipes import source


def main() -> None:
    folder = source.target("next-item")
    given = source.required("video_games", "Video.txt of github.com/kang205/SASRec, commit e373896: half of its users")
    shutil.copyfile(given / "interactions.parquet", folder / "interactions.parquet")
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
