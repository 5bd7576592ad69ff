"""442 patients, ten measurements, the disease's progress after a year (Efron et al. 2004, "Least angle regression").

The table ships with scikit-learn; raw values, not the scaled ones.
"""

import csv

from sklearn.datasets import load_diabetes

from recipes import source


def main() -> None:
    folder = source.target("diabetes")
    found = load_diabetes(scaled=False)
    with (folder / "patients.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["age", "sex", "bmi", "blood_pressure", *found.feature_names[4:], "progress"])
        for row, target in zip(found.data, found.target, strict=True):
            age, sex, *rest = row
            table.writerow([age, "female" if sex == 1 else "male", *rest, target])
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
